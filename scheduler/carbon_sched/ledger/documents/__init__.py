"""Documents of sections, tables and charts: for a terminal, as Markdown, HTML and PDF. Pure, and of no subject."""
