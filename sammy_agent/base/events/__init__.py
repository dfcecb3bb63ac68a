# SPDX-License-Identifier: Apache-2.0
"""Events: what happened on this node. Recorded here, stored by `diagnostics.event_store`.

store = EventStore(paths.events)                        # the file; reading needs no running agent
recorder = Recorder(store, boot_id)                      # any thread records, none waits for the disk
recorder.record(kinds.CONTACT_LOST, "no answer", detail={"code": "no-answer"})
store.events(EventQuery(50, level="warn", type_prefix="contact."))  # newest first
"""
