"""Commands about models: finding, installing, listing, moving, fusing them."""
