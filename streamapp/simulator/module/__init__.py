"""The client's side: argument rules, struct types, and the functions of the module. Knows the wire and nothing else."""
