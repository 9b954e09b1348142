"""The command line: commands only parse, call and print."""
