"""The documentation as HTML, from the root of the checkout: sphinx-build -W -n -c docs . outputs/site"""

project = "SegmentDreamer, open"
html_title = project
html_theme = "furo"
html_theme_options = {"sidebar_hide_name": True}
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_copyright = False

# The pages link to the README files, and these to the pages and their pictures: all are part of the site.
root_doc = "docs/index"
include_patterns = ["docs/**", "*.md", "submodules/*/README.md"]
exclude_patterns = [".*", "outputs"]
html_additional_pages = {"index": "to_root_doc.html"}
templates_path = ["templates"]

extensions = ["myst_parser"]
myst_enable_extensions = ["dollarmath", "html_image"]
myst_heading_anchors = 3  # links to headings, named as the code host names them
