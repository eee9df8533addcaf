"""A model server: exported SavedModels behind KServe's REST and gRPC protocols.

`models` loads SavedModels and follows a folder of their versions, `batches` joins requests, `adapter`
brings both to KServe's server, which ``python -m tf_mwnet.serve`` starts.
"""
