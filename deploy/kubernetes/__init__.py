"""What of the manifests is made from other files: `python -m deploy.kubernetes` writes it; the result is committed."""
