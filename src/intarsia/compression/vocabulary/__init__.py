"""A smaller vocabulary for a model of one domain: fewer rows in the embedding and the head."""
