-- SPDX-License-Identifier: Apache-2.0
-- A control plane's file as sammy 0.1.0 wrote it before both halves stood on one SQLite layer (schema 3).
BEGIN TRANSACTION;
CREATE TABLE acp_sessions (
            project_id TEXT NOT NULL, id TEXT NOT NULL, node_id TEXT NOT NULL, activity TEXT NOT NULL,
            report TEXT NOT NULL, reported_at REAL NOT NULL, alive_at REAL NOT NULL, PRIMARY KEY (project_id, id));
INSERT INTO "acp_sessions" VALUES('p1','a1','n1','prompting','{"activity": "prompting"}',1.79596293078957748414e+09,1.79596293078957748414e+09);
CREATE TABLE artifacts (
            node_id TEXT NOT NULL, incident_id TEXT NOT NULL, artifact_id TEXT NOT NULL, status TEXT NOT NULL,
            declared TEXT NOT NULL, received_at REAL NOT NULL, PRIMARY KEY (node_id, incident_id, artifact_id));
INSERT INTO "artifacts" VALUES('n1','01JDVJ0000000000000000000A','x-safe','pending','{"artifactId": "x-safe", "kind": "safe-vm-incident-v1", "checksumSha256": "0000000000000000000000000000000000000000000000000000000000000000", "sizeBytes": 3, "status": "ready"}',1.79596293078968119623e+09);
CREATE TABLE boot_log (
            seq INTEGER PRIMARY KEY AUTOINCREMENT, node_id TEXT NOT NULL, workspace_id TEXT, entry_id TEXT NOT NULL,
            step TEXT NOT NULL, status TEXT NOT NULL, message TEXT NOT NULL, detail TEXT, timestamp TEXT NOT NULL,
            received_at REAL NOT NULL, UNIQUE (node_id, entry_id));
INSERT INTO "boot_log" VALUES(1,'n1',NULL,'e1','docker','failed','no',NULL,'2026-01-01T00:00:00Z',1.7959629307894318103e+09);
CREATE TABLE incidents (
            node_id TEXT NOT NULL,
            incident_id TEXT NOT NULL,
            received_at REAL NOT NULL,
            level TEXT NOT NULL,
            message TEXT NOT NULL,
            source TEXT NOT NULL,
            entry TEXT NOT NULL,
            PRIMARY KEY (node_id, incident_id)
        );
INSERT INTO "incidents" VALUES('n1','01JDVJ0000000000000000000A',1.79596293078922343254e+09,'error','docker: no','agent','{"incidentId": "01JDVJ0000000000000000000A", "level": "error", "message": "docker: no", "source": "agent"}');
CREATE TABLE messages (
            workspace_id TEXT NOT NULL, message_id TEXT NOT NULL, session_id TEXT NOT NULL, role TEXT NOT NULL,
            content TEXT NOT NULL, tool_metadata TEXT, origin TEXT, timestamp TEXT NOT NULL, sequence INTEGER,
            received_at REAL NOT NULL, PRIMARY KEY (workspace_id, message_id));
INSERT INTO "messages" VALUES('w1','m1','s-1','user','hello ✓',NULL,NULL,'2026-01-01T00:00:00Z',1,1.7959629307893140316e+09);
CREATE TABLE nodes (
            id TEXT PRIMARY KEY,
            status TEXT NOT NULL DEFAULT 'creating',
            created_at REAL NOT NULL,
            updated_at REAL NOT NULL,
            stale_after_s INTEGER NOT NULL DEFAULT 180,
            last_heartbeat_at REAL,
            ready_at REAL,
            agent_version TEXT,
            ip_address TEXT,
            metrics TEXT,
            provisioning TEXT,
            boot_token_id TEXT,
            boot_token_used_at REAL,
            key_digest TEXT
        , agent_port INTEGER, url TEXT, reachable INTEGER, reachable_at REAL, unreachable_why TEXT);
INSERT INTO "nodes" VALUES('n1','running',1.79596293078893089298e+09,1.79596293078914165494e+09,180,1000.0,NULL,NULL,NULL,'{"cpuLoadAvg1": 0.5}',NULL,'b-1',NULL,NULL,8443,'https://192.0.2.7:8787',1,1001.0,NULL);
INSERT INTO "nodes" VALUES('n2','creating',1.79596293078909468657e+09,1.79596293078909468657e+09,180,NULL,NULL,NULL,NULL,NULL,NULL,'b-2',NULL,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
INSERT INTO "settings" VALUES('url','https://192.0.2.7:8787');
CREATE TABLE workspaces (
            id TEXT PRIMARY KEY, node_id TEXT NOT NULL, session_id TEXT, created_at REAL NOT NULL);
INSERT INTO "workspaces" VALUES('w1','n1','s-1',1.79596293078927063944e+09);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('boot_log',1);
COMMIT;
PRAGMA user_version=3;
PRAGMA journal_mode=wal;
