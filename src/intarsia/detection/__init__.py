"""Detection: whose text is it, a person's or a machine's?"""
