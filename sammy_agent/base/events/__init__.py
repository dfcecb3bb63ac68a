# SPDX-License-Identifier: Apache-2.0
"""What happened on this node, kept for those who ask later.

store = EventStore(paths.events)                        # the file; reading needs no running agent
recorder = Recorder(store, boot_id)                      # any thread records, none waits for the disk
recorder.record(kinds.CONTACT_LOST, "no answer", detail={"code": "no-answer"})
store.events(EventQuery(50, level="warn", type_prefix="contact."))  # newest first
"""
