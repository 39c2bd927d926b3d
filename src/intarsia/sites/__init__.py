"""Sites: the one engine that reads, edits and resumes a network."""
