"""What a serialized engine says about itself before anybody trusts it with a device: header and compatibility."""
