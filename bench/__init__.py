"""Speed beside other libraries: python -m bench [part]."""
