"""The audit log. Its trigger keeps rows as they were written, whoever opens the file."""

from __future__ import annotations

from django.db import migrations, models

KEEP = """
CREATE TRIGGER audit_rows_stay BEFORE UPDATE ON monitoring_auditrow
BEGIN SELECT RAISE(ABORT, 'rows of the audit log are not changed'); END
"""


class Migration(migrations.Migration):
    dependencies = [("monitoring", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="AuditRow",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("at", models.FloatField()),
                ("who", models.CharField(max_length=200)),
                ("who_kind", models.CharField(max_length=16)),
                ("address", models.CharField(default="", max_length=64)),
                ("via", models.CharField(max_length=16)),
                ("action", models.CharField(max_length=64)),
                ("subject", models.CharField(default="", max_length=512)),
                ("outcome", models.CharField(max_length=16)),
                ("status", models.PositiveSmallIntegerField(null=True)),
                ("reason", models.CharField(default="", max_length=300)),
                ("request_id", models.CharField(default="", max_length=64)),
                ("detail", models.JSONField(default=dict)),
            ],
            options={
                "indexes": [
                    models.Index(fields=["at"], name="audit_at"),
                    models.Index(fields=["action", "id"], name="audit_action"),
                    models.Index(fields=["who", "id"], name="audit_who"),
                ],
            },
        ),
        migrations.RunSQL(KEEP, "DROP TRIGGER audit_rows_stay"),
    ]
