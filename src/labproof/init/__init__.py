"""`labproof init`: look at a lab that nobody has declared yet, and write the lab.yaml it would have.

`endpoints` says what will be contacted and as whom, `look` asks it (with the probes of the suite itself), `cards` and
`joins` find GPUs and follow them from slot to node, `shape` reads how the cluster offers them, `declare` turns all
that into lines, `page` into YAML, `write` onto the disk.
"""
