"""`labproof lint`: mistakes that are visible in an owner's files, before anything is applied."""
