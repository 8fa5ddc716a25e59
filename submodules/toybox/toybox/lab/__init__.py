"""Laboratory of toybox: what trains, measures and judges it. It needs the project's checkout; toybox itself
does not.
"""
