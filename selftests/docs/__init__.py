"""The documentation site: built without warnings, links that lead somewhere, pages that are true."""
