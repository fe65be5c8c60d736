"""The sections of the report, one package each. Each registers itself with core.registry.SECTIONS."""
