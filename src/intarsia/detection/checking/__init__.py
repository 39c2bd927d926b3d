"""Checking documents: verdicts, how sure they are, and the passages they rest on."""
