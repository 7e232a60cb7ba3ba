"""A model that is loaded and asked, until the front process has gone."""
