"""From MQTT to verified, opened messages: subscriber, inbox, sequence chain, quarantine, fleet, recalls."""
