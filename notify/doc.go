// Package notify tells people of requests for access where they work, and takes their
// answers: Slack, signed webhooks, e-mail, and a page in the browser.
//
// It reads the events that package grant stores with each step, and so never holds a step
// up. Of all members one, which holds a lease, turns events into deliveries, and stores
// those together with how far it has read; deliveries are tried again until they succeed
// or have been tried often enough. A message may come twice where a member dies between
// sending it and noting so, but none is lost, and none is sent for ever.
//
// What people wrote (reasons, names, tags) is data: each renderer escapes and clips it.
// Nothing that is sent out carries authority: buttons and links name a request and its
// hash, and the engine decides by who is found to have clicked.
package notify
