"""The passport of a network: what it is made of, what it costs, and how far the frameworks are apart in it."""
