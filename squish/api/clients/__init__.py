"""Who asks a server: several keys, what each may do, and what each has used."""
