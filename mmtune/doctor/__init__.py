"""What is here of what mmtune needs: versions, devices, room, known traps, and the command that mends each.

One file for each thing that is looked at, `report.py` for all of them. What must be imported to be known is imported by
`probe.py` in a process of its own, so that a broken library ends that process and not the report. Nothing here fetches
anything, and nothing is changed.
"""
