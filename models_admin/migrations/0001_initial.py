"""The first tables: models, files, jobs."""

from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Job",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("kind", models.CharField(max_length=32)),
                ("subject", models.CharField(blank=True, help_text="the model or file it is about", max_length=512)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("queued", "queued"),
                            ("running", "running"),
                            ("done", "done"),
                            ("failed", "failed"),
                            ("cancelled", "cancelled"),
                        ],
                        default="queued",
                        max_length=16,
                    ),
                ),
                ("phase", models.CharField(blank=True, max_length=64)),
                ("done", models.BigIntegerField(default=0)),
                ("total", models.BigIntegerField(default=0)),
                ("unit", models.CharField(default="bytes", max_length=16)),
                ("error", models.TextField(blank=True)),
                ("params", models.JSONField(default=dict)),
                ("result", models.JSONField(blank=True, default=dict)),
                ("lease_pid", models.IntegerField(blank=True, null=True)),
                ("heartbeat_at", models.DateTimeField(blank=True, null=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("started_at", models.DateTimeField(blank=True, null=True)),
                ("finished_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={
                "ordering": ["-id"],
                "indexes": [models.Index(fields=["state", "kind"], name="models_admi_state_6fa8f7_idx")],
            },
        ),
        migrations.CreateModel(
            name="ModelRecord",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("path", models.CharField(max_length=4096, unique=True)),
                ("root", models.CharField(max_length=4096)),
                ("source", models.CharField(max_length=32)),
                ("repo", models.CharField(max_length=512)),
                ("revision", models.CharField(blank=True, max_length=256)),
                ("variant", models.CharField(blank=True, max_length=128)),
                ("format", models.CharField(default="mlx", max_length=16)),
                ("fingerprint", models.CharField(blank=True, max_length=64)),
                ("architecture", models.CharField(blank=True, max_length=128)),
                ("quantization", models.CharField(blank=True, max_length=32)),
                ("weight_bytes", models.BigIntegerField(default=0)),
                ("total_bytes", models.BigIntegerField(default=0)),
                ("context_length", models.BigIntegerField(default=0)),
                ("kv_bytes_per_token", models.BigIntegerField(default=0)),
                ("has_chat_template", models.BooleanField(default=False)),
                (
                    "disk_state",
                    models.CharField(
                        choices=[
                            ("absent", "absent"),
                            ("partial", "partial"),
                            ("adopted", "adopted, not yet verified"),
                            ("verified", "verified"),
                            ("corrupt", "corrupt"),
                            ("offline", "offline: volume not mounted"),
                        ],
                        default="adopted",
                        max_length=16,
                    ),
                ),
                ("problem", models.TextField(blank=True)),
                (
                    "created_at",
                    models.DateTimeField(help_text="when the directory was made, as far as the file system knows"),
                ),
                ("first_seen", models.DateTimeField()),
                ("last_seen", models.DateTimeField()),
                ("vanished_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={
                "ordering": ["repo", "revision", "variant"],
                "indexes": [
                    models.Index(fields=["repo"], name="models_admi_repo_7bab17_idx"),
                    models.Index(fields=["root"], name="models_admi_root_14ee07_idx"),
                    models.Index(fields=["disk_state"], name="models_admi_disk_st_dbdfa3_idx"),
                ],
            },
        ),
        migrations.CreateModel(
            name="ModelFile",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=1024)),
                ("size", models.BigIntegerField()),
                ("mtime_ns", models.BigIntegerField(default=0)),
                ("sha256_expected", models.CharField(blank=True, max_length=64)),
                ("sha256_actual", models.CharField(blank=True, max_length=64)),
                ("verified_at", models.DateTimeField(blank=True, null=True)),
                (
                    "model",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="files", to="models_admin.modelrecord"
                    ),
                ),
            ],
            options={
                "ordering": ["name"],
                "constraints": [models.UniqueConstraint(fields=("model", "name"), name="one_row_per_file")],
            },
        ),
    ]
