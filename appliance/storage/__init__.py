"""Files on disk: space kept in reserve. Shared by the unit, the base and the control room."""
