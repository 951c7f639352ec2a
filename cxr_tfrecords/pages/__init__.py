"""What pages and figures share: HTML, SVG, Markdown, the style of plots."""
