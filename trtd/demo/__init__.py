"""What `trtd demo` shows: small models made on the spot."""
