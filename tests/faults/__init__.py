"""What the fault tests share, and campaigns that run longer than a test suite may.

``watcher`` looks at Glance from outside while runs go on, ``killer`` ends runs at chosen requests.
``python3 -m tests.faults`` runs a campaign; see the README beside this file.
"""
