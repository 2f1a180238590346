"""durably inside a browser's worker: signs of life, the page's port, and booting. Pyodide only."""
