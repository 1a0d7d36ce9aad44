"""Files of the field: SEG-Y, Seismic Unix, RSF and NetCDF, read and written without knowing the configuration."""
