"""Small tools that know nothing of configuration, scenes or guidance."""
