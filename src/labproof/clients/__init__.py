"""The clients: SSH, the Proxmox VE API, the Talos API and the Kubernetes API.

Each is thin: one connection, bounded time, plain data in and out, and one vocabulary of failure
(`labproof.clients.errors`). What an answer means is judged elsewhere.
"""
