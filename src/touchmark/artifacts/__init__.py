"""Content-addressed bytes. Knows digests, not models.

`layout.py` draws the object tree; `blobs.py` is the contract; `local.py` and `bucket.py` keep it; `manifests.py` turns
a list of files into the bytes whose digest names a version.

Durability and correctness of bytes live here. Rows, leases, permissions and garbage collection's decisions do not.
"""
