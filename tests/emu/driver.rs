//! The stand-in driver under the real cudarc. To be filled.
