//! Root, context and PASID tables.
