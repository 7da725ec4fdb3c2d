"""What a user can do: one function each. Permission, rule, rows, event, in one transaction. One noun a file."""
