PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE checkpoints (
    run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    step INTEGER NOT NULL,
    path TEXT NOT NULL,
    best INTEGER NOT NULL,
    time TEXT NOT NULL,
    PRIMARY KEY (run, step)
  ) STRICT, WITHOUT ROWID;
INSERT INTO "checkpoints" VALUES('20260901-120000-aaa1',2,'checkpoints/step-000002',0,'2026-11-29T06:59:06.097Z');
INSERT INTO "checkpoints" VALUES('20260901-120000-aaa1',4,'checkpoints/step-000004',1,'2026-11-29T06:59:06.104Z');
INSERT INTO "checkpoints" VALUES('20260901-120001-aaa2',1,'checkpoints/step-000001',0,'2026-11-29T06:59:06.116Z');
CREATE TABLE events (
    run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    time TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    type TEXT NOT NULL,
    step INTEGER,
    superseded INTEGER NOT NULL DEFAULT 0,
    body TEXT NOT NULL,
    PRIMARY KEY (run, seq)
  ) STRICT, WITHOUT ROWID;
INSERT INTO "events" VALUES('20260901-120000-aaa1',1,'2026-09-01T12:00:00.000Z',0,'state',NULL,0,'{"type":"state","state":"queued"}');
INSERT INTO "events" VALUES('20260901-120000-aaa1',2,'2026-11-29T06:59:06.097Z',1,'state',NULL,0,'{"type":"state","state":"running"}');
INSERT INTO "events" VALUES('20260901-120000-aaa1',3,'2026-11-29T06:59:06.097Z',1,'metrics',1,0,'{"type":"metrics","step":1,"loss":3,"losses":{"cross-entropy":3},"learningRate":1,"gradientNorm":1,"supervisedTokens":1,"tokensPerSecond":1,"secondsPerStep":1}');
INSERT INTO "events" VALUES('20260901-120000-aaa1',4,'2026-11-29T06:59:06.097Z',1,'metrics',2,0,'{"type":"metrics","step":2,"loss":2,"losses":{"cross-entropy":2},"learningRate":1,"gradientNorm":1,"supervisedTokens":1,"tokensPerSecond":1,"secondsPerStep":1}');
INSERT INTO "events" VALUES('20260901-120000-aaa1',5,'2026-11-29T06:59:06.097Z',1,'checkpoint',2,0,'{"type":"checkpoint","step":2,"path":"checkpoints/step-000002","best":true}');
INSERT INTO "events" VALUES('20260901-120000-aaa1',6,'2026-11-29T06:59:06.097Z',1,'metrics',3,1,'{"type":"metrics","step":3,"loss":1.5,"losses":{"cross-entropy":1.5},"learningRate":1,"gradientNorm":1,"supervisedTokens":1,"tokensPerSecond":1,"secondsPerStep":1}');
INSERT INTO "events" VALUES('20260901-120000-aaa1',7,'2026-11-29T06:59:06.100Z',1,'state',NULL,0,'{"type":"state","state":"interrupted","message":"the process that watched over the run ended"}');
INSERT INTO "events" VALUES('20260901-120000-aaa1',8,'2026-11-29T06:59:06.100Z',1,'state',NULL,0,'{"type":"state","state":"queued","message":"it continues from its last checkpoint, if there is one"}');
INSERT INTO "events" VALUES('20260901-120000-aaa1',9,'2026-11-29T06:59:06.104Z',2,'state',NULL,0,'{"type":"state","state":"running"}');
INSERT INTO "events" VALUES('20260901-120000-aaa1',10,'2026-11-29T06:59:06.104Z',2,'rewind',2,0,'{"type":"rewind","step":2}');
INSERT INTO "events" VALUES('20260901-120000-aaa1',11,'2026-11-29T06:59:06.104Z',2,'metrics',3,0,'{"type":"metrics","step":3,"loss":1.5,"losses":{"cross-entropy":1.5},"learningRate":1,"gradientNorm":1,"supervisedTokens":1,"tokensPerSecond":1,"secondsPerStep":1}');
INSERT INTO "events" VALUES('20260901-120000-aaa1',12,'2026-11-29T06:59:06.104Z',2,'metrics',4,0,'{"type":"metrics","step":4,"loss":1,"losses":{"cross-entropy":1},"learningRate":1,"gradientNorm":1,"supervisedTokens":1,"tokensPerSecond":1,"secondsPerStep":1}');
INSERT INTO "events" VALUES('20260901-120000-aaa1',13,'2026-11-29T06:59:06.104Z',2,'checkpoint',4,0,'{"type":"checkpoint","step":4,"path":"checkpoints/step-000004","best":true}');
INSERT INTO "events" VALUES('20260901-120000-aaa1',14,'2026-11-29T06:59:06.104Z',2,'result',NULL,0,'{"type":"result","result":{"status":"succeeded","steps":4,"heldOut":{"teacher":1,"before":3,"after":1,"gapClosed":null,"tokens":10},"paths":{},"peakBytes":{"planned":1,"allocated":1},"seconds":1}}');
INSERT INTO "events" VALUES('20260901-120000-aaa1',15,'2026-11-29T06:59:06.104Z',2,'state',NULL,0,'{"type":"state","state":"succeeded"}');
INSERT INTO "events" VALUES('20260901-120001-aaa2',1,'2026-09-01T12:00:01.000Z',0,'state',NULL,0,'{"type":"state","state":"queued"}');
INSERT INTO "events" VALUES('20260901-120001-aaa2',2,'2026-11-29T06:59:06.112Z',1,'state',NULL,0,'{"type":"state","state":"running"}');
INSERT INTO "events" VALUES('20260901-120001-aaa2',3,'2026-11-29T06:59:06.112Z',1,'metrics',1,0,'{"type":"metrics","step":1,"loss":3,"losses":{"cross-entropy":3},"learningRate":1,"gradientNorm":1,"supervisedTokens":1,"tokensPerSecond":1,"secondsPerStep":1}');
INSERT INTO "events" VALUES('20260901-120001-aaa2',4,'2026-11-29T06:59:06.116Z',1,'checkpoint',1,0,'{"type":"checkpoint","step":1,"path":"checkpoints/step-000001","best":false}');
INSERT INTO "events" VALUES('20260901-120001-aaa2',5,'2026-11-29T06:59:06.116Z',1,'state',NULL,0,'{"type":"state","state":"paused"}');
INSERT INTO "events" VALUES('20260901-120002-aaa3',1,'2026-09-01T12:00:02.000Z',0,'state',NULL,0,'{"type":"state","state":"queued"}');
INSERT INTO "events" VALUES('20260901-120002-aaa3',2,'2026-11-29T06:59:06.124Z',1,'state',NULL,0,'{"type":"state","state":"running"}');
INSERT INTO "events" VALUES('20260901-120002-aaa3',3,'2026-11-29T06:59:06.124Z',1,'error',NULL,0,'{"type":"error","code":"device","message":"the GPU was lost","exitCode":4}');
INSERT INTO "events" VALUES('20260901-120002-aaa3',4,'2026-11-29T06:59:06.124Z',1,'state',NULL,0,'{"type":"state","state":"failed"}');
INSERT INTO "events" VALUES('20260901-120002-aaa3',5,'2026-11-29T06:59:06.129Z',1,'state',NULL,0,'{"type":"state","state":"queued"}');
INSERT INTO "events" VALUES('20260901-120003-aaa4',1,'2026-09-01T12:00:03.000Z',0,'state',NULL,0,'{"type":"state","state":"queued"}');
INSERT INTO "events" VALUES('20260901-120003-aaa4',2,'2026-11-29T06:59:06.140Z',1,'state',NULL,0,'{"type":"state","state":"running"}');
INSERT INTO "events" VALUES('20260901-120003-aaa4',3,'2026-11-29T06:59:06.140Z',1,'metrics',1,0,'{"type":"metrics","step":1,"loss":3,"losses":{"cross-entropy":3},"learningRate":1,"gradientNorm":1,"supervisedTokens":1,"tokensPerSecond":1,"secondsPerStep":1}');
CREATE TABLE idempotency_keys (
    owner TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    created TEXT NOT NULL,
    PRIMARY KEY (owner, key)
  ) STRICT, WITHOUT ROWID;
INSERT INTO "idempotency_keys" VALUES('ada','k0','f','20260901-120000-aaa1','2026-09-01T12:00:00.000Z');
CREATE TABLE leases (
    gpu TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    lock TEXT NOT NULL
  ) STRICT;
INSERT INTO "leases" VALUES('default','20260901-120003-aaa4','/srv/limbeck-data/runs/20260901-120003-aaa4/run.lock');
CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    created TEXT NOT NULL,
    folder TEXT NOT NULL UNIQUE,
    worker TEXT NOT NULL,
    owner TEXT NOT NULL,
    state TEXT NOT NULL,
    manifest TEXT NOT NULL,
    recipe TEXT NOT NULL,
    named TEXT,
    metadata TEXT NOT NULL,
    asked TEXT,
    restarts INTEGER NOT NULL DEFAULT 0,
    seq INTEGER NOT NULL DEFAULT 0,
    attempt INTEGER NOT NULL DEFAULT 0,
    step INTEGER NOT NULL DEFAULT 0,
    loss REAL,
    started TEXT,
    finished TEXT,
    result TEXT,
    error TEXT
  ) STRICT;
INSERT INTO "runs" VALUES('20260901-120000-aaa1','2026-09-01T12:00:00.000Z','/srv/limbeck-data/runs/20260901-120000-aaa1','service','ada','succeeded','{"id":"20260901-120000-aaa1","createdAt":"2026-09-01T12:00:00.000Z","limbeck":"0.1.0","deno":"2.9.6","recipeHash":"fe888bfe35017165d35717fd9788c35aa496c9baedfb7a381bf7499aaa0cc71e","plugins":[]}','{"teacher":{"model":"/srv/model","train":false},"student":{"model":"teacher"},"data":{"train":"/srv/train.jsonl","contextLength":512,"mask":"auto","tooLong":"cut","endToken":"auto","template":false},"objective":[{"loss":"cross-entropy","weight":0.5,"temperature":1,"options":{}},{"loss":"forward-kl","weight":0.5,"temperature":1,"options":{}}],"adapter":{"type":"lora","rank":16,"alpha":32,"dropout":0,"targets":"all-linear","rslora":false,"loraPlusRatio":1,"rankPattern":{},"alphaPattern":{},"options":{}},"train":{"steps":4,"tokensPerMicroBatch":1024,"accumulation":1,"learningRate":0.0002,"schedule":"cosine","warmup":0,"minimumLearningRate":0,"weightDecay":0.01,"beta1":0.9,"beta2":0.999,"epsilon":1e-8,"clip":1,"checkpointEvery":50,"evaluateEvery":50,"keepCheckpoints":2,"activationCheckpointing":"auto","headChunk":"auto","seed":1,"divergence":{"maxLossFactor":3,"window":20}},"samples":{"prompts":[],"tokens":64,"temperature":0,"topK":0,"topP":1,"seed":1},"output":{"merged":true},"limits":{"watchdogSeconds":120}}','{"teacher":{"model":"model"}}','{"n":"0"}',NULL,1,15,2,4,1.0,'2026-11-29T06:59:06.097Z','2026-11-29T06:59:06.104Z','{"status":"succeeded","steps":4,"heldOut":{"teacher":1,"before":3,"after":1,"gapClosed":null,"tokens":10},"paths":{},"peakBytes":{"planned":1,"allocated":1},"seconds":1}',NULL);
INSERT INTO "runs" VALUES('20260901-120001-aaa2','2026-09-01T12:00:01.000Z','/srv/limbeck-data/runs/20260901-120001-aaa2','command','','paused','{"id":"20260901-120001-aaa2","createdAt":"2026-09-01T12:00:01.000Z","limbeck":"0.1.0","deno":"2.9.6","recipeHash":"fe888bfe35017165d35717fd9788c35aa496c9baedfb7a381bf7499aaa0cc71e","plugins":[]}','{"teacher":{"model":"/srv/model","train":false},"student":{"model":"teacher"},"data":{"train":"/srv/train.jsonl","contextLength":512,"mask":"auto","tooLong":"cut","endToken":"auto","template":false},"objective":[{"loss":"cross-entropy","weight":0.5,"temperature":1,"options":{}},{"loss":"forward-kl","weight":0.5,"temperature":1,"options":{}}],"adapter":{"type":"lora","rank":16,"alpha":32,"dropout":0,"targets":"all-linear","rslora":false,"loraPlusRatio":1,"rankPattern":{},"alphaPattern":{},"options":{}},"train":{"steps":4,"tokensPerMicroBatch":1024,"accumulation":1,"learningRate":0.0002,"schedule":"cosine","warmup":0,"minimumLearningRate":0,"weightDecay":0.01,"beta1":0.9,"beta2":0.999,"epsilon":1e-8,"clip":1,"checkpointEvery":50,"evaluateEvery":50,"keepCheckpoints":2,"activationCheckpointing":"auto","headChunk":"auto","seed":1,"divergence":{"maxLossFactor":3,"window":20}},"samples":{"prompts":[],"tokens":64,"temperature":0,"topK":0,"topP":1,"seed":1},"output":{"merged":true},"limits":{"watchdogSeconds":120}}',NULL,'{"n":"1"}',NULL,0,5,1,1,3.0,'2026-11-29T06:59:06.112Z','2026-11-29T06:59:06.116Z',NULL,NULL);
INSERT INTO "runs" VALUES('20260901-120002-aaa3','2026-09-01T12:00:02.000Z','/srv/limbeck-data/runs/20260901-120002-aaa3','service','ada','queued','{"id":"20260901-120002-aaa3","createdAt":"2026-09-01T12:00:02.000Z","limbeck":"0.1.0","deno":"2.9.6","recipeHash":"fe888bfe35017165d35717fd9788c35aa496c9baedfb7a381bf7499aaa0cc71e","plugins":[]}','{"teacher":{"model":"/srv/model","train":false},"student":{"model":"teacher"},"data":{"train":"/srv/train.jsonl","contextLength":512,"mask":"auto","tooLong":"cut","endToken":"auto","template":false},"objective":[{"loss":"cross-entropy","weight":0.5,"temperature":1,"options":{}},{"loss":"forward-kl","weight":0.5,"temperature":1,"options":{}}],"adapter":{"type":"lora","rank":16,"alpha":32,"dropout":0,"targets":"all-linear","rslora":false,"loraPlusRatio":1,"rankPattern":{},"alphaPattern":{},"options":{}},"train":{"steps":4,"tokensPerMicroBatch":1024,"accumulation":1,"learningRate":0.0002,"schedule":"cosine","warmup":0,"minimumLearningRate":0,"weightDecay":0.01,"beta1":0.9,"beta2":0.999,"epsilon":1e-8,"clip":1,"checkpointEvery":50,"evaluateEvery":50,"keepCheckpoints":2,"activationCheckpointing":"auto","headChunk":"auto","seed":1,"divergence":{"maxLossFactor":3,"window":20}},"samples":{"prompts":[],"tokens":64,"temperature":0,"topK":0,"topP":1,"seed":1},"output":{"merged":true},"limits":{"watchdogSeconds":120}}','{"teacher":{"model":"model"}}','{"n":"2"}',NULL,0,5,1,0,NULL,'2026-11-29T06:59:06.124Z',NULL,NULL,'{"type":"error","code":"device","message":"the GPU was lost","exitCode":4}');
INSERT INTO "runs" VALUES('20260901-120003-aaa4','2026-09-01T12:00:03.000Z','/srv/limbeck-data/runs/20260901-120003-aaa4','service','ada','running','{"id":"20260901-120003-aaa4","createdAt":"2026-09-01T12:00:03.000Z","limbeck":"0.1.0","deno":"2.9.6","recipeHash":"fe888bfe35017165d35717fd9788c35aa496c9baedfb7a381bf7499aaa0cc71e","plugins":[]}','{"teacher":{"model":"/srv/model","train":false},"student":{"model":"teacher"},"data":{"train":"/srv/train.jsonl","contextLength":512,"mask":"auto","tooLong":"cut","endToken":"auto","template":false},"objective":[{"loss":"cross-entropy","weight":0.5,"temperature":1,"options":{}},{"loss":"forward-kl","weight":0.5,"temperature":1,"options":{}}],"adapter":{"type":"lora","rank":16,"alpha":32,"dropout":0,"targets":"all-linear","rslora":false,"loraPlusRatio":1,"rankPattern":{},"alphaPattern":{},"options":{}},"train":{"steps":4,"tokensPerMicroBatch":1024,"accumulation":1,"learningRate":0.0002,"schedule":"cosine","warmup":0,"minimumLearningRate":0,"weightDecay":0.01,"beta1":0.9,"beta2":0.999,"epsilon":1e-8,"clip":1,"checkpointEvery":50,"evaluateEvery":50,"keepCheckpoints":2,"activationCheckpointing":"auto","headChunk":"auto","seed":1,"divergence":{"maxLossFactor":3,"window":20}},"samples":{"prompts":[],"tokens":64,"temperature":0,"topK":0,"topP":1,"seed":1},"output":{"merged":true},"limits":{"watchdogSeconds":120}}','{"teacher":{"model":"model"}}','{"n":"3"}','cancel',0,3,1,1,3.0,'2026-11-29T06:59:06.140Z',NULL,NULL,NULL);
CREATE INDEX runs_by_age ON runs (created, id);
CREATE INDEX runs_by_state ON runs (state, created, id);
CREATE INDEX events_by_type ON events (run, type, seq);
CREATE INDEX metrics_by_step ON events (run, step) WHERE type = 'metrics' AND superseded = 0;
COMMIT;
