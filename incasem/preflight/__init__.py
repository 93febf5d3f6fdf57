"""Everything that can be known to go wrong before it starts: settings, data, network, machine.

The steps are those that training and prediction take themselves; here none stops the others.
"""
