"""Finding models without widgets: the search, the filters, and what a repository offers."""
