"""OCI Distribution on /v2: blobs and manifests. Our own SDK moves bytes through it too."""
