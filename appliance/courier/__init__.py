"""The courier process: stores sealed containers and sends them over MQTT. It has no key that opens or signs."""
