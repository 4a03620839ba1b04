// Package bucket opens the stores that recordings are kept in, by URL:
//
//	/var/lib/…, file:///var/lib/…        a folder
//	s3://BUCKET/PREFIX?region=…          Amazon S3, and with endpoint=… what speaks like it
//	gs://BUCKET/PREFIX                   Google Cloud Storage (build tag clouds)
//	azblob://CONTAINER/PREFIX?account=…  Azure Blob Storage (build tag clouds)
//
// No credentials are in a URL: they come from a file that is named beside it, or from
// where the store's own tools look for them. What leaves this machine goes by TLS.
package bucket
