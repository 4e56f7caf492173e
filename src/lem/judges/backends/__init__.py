"""The services and local models that can be asked for a verdict, and the limits, waits and money of asking them."""
