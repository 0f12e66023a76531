"""Bad transport, sudden death, company, secrets."""
