"""MQTT 5 over mutual TLS. Shared by the courier and the control room; vision and keeper never load it."""
