"""Programs beside the command line: the demo, Meta-World's own protocol, tables and pictures of the manual."""
