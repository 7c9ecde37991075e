//! Page Request Interface.
