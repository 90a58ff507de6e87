"""``python3 -m tests.demo``: the main job shown on a real Keystone and Glance, and checked.

``command`` is the command, ``story`` what happens on stage, ``marketplace`` the publisher's side,
``program`` runs glancing as an operator would, ``catalogue`` looks into Glance without glancing's
help and says what differs from what should be there.
"""
