"""Scripts in addition to the command line: the demo, Meta-World's own protocol, tables and figures of the manual."""
