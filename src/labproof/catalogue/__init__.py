"""Knowledge kept as data: causes, card capabilities, versions."""
